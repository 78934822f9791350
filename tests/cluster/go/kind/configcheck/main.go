// Command configcheck reads a kind configuration as `kind create cluster` does: decode strictly, set
// the defaults, validate. It needs no container engine.
package main

import (
	"fmt"
	"os"

	"sigs.k8s.io/kind/pkg/internal/apis/config/encoding"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: configcheck FILE")
		os.Exit(2)
	}
	cluster, err := encoding.Load(os.Args[1])
	if err == nil {
		err = cluster.Validate()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
	fmt.Printf("%s: %s, %d node(s)\n", os.Args[1], cluster.Name, len(cluster.Nodes))
}
