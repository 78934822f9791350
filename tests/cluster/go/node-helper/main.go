// Command node-helper is the node's own image, FROM scratch, in two roles: the pause container that
// holds a pod's namespaces, and the helper pod with which local-path-provisioner makes and removes a
// volume's directory.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	var err error
	if len(os.Args) == 2 && os.Args[1] == "pause" {
		pause()
	} else {
		err = volume(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node-helper:", err)
		os.Exit(1)
	}
}

// pause waits to be told to stop and meanwhile reaps what a shared process namespace leaves to it.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// volume makes or removes one directory, as local-path-provisioner's arguments say.
func volume(arguments []string) error {
	flags := flag.NewFlagSet("node-helper", flag.ContinueOnError)
	path := flags.String("p", "", "the volume's directory")
	action := flags.String("a", "", "create or delete")
	_ = flags.String("s", "", "the size in bytes, which a directory cannot hold anyone to")
	_ = flags.String("m", "", "the volume's mode; only Filesystem is known")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if !filepath.IsAbs(*path) || filepath.Dir(*path) == "/" {
		return fmt.Errorf("-p %q is no absolute path of a volume below a directory", *path)
	}
	switch *action {
	case "create":
		if err := os.MkdirAll(*path, 0o777); err != nil {
			return err
		}
		return os.Chmod(*path, 0o777) // any user may write, whatever the umask: a hostPath takes no fsGroup
	case "delete":
		return os.RemoveAll(*path)
	}
	return fmt.Errorf("-a %q is neither create nor delete", *action)
}
