// Runs what manifests/argocd says of our kinds in Argo CD's own Lua engine. On standard input a JSON list of questions:
// {"ask": "health" | "discovery" | "action", "script": "...", "object": {...}}, or {"ask": "diff", "git": {...}, "object": {...}}
// for whether Argo CD would call the live object OutOfSync by its three-way diff; on standard output a list of answers.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/gitops-engine/pkg/diff"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Ask    string         `json:"ask"`
	Script string         `json:"script"`
	Object map[string]any `json:"object"`
	Git    map[string]any `json:"git"`
}

func answered(vm lua.VM, asked question) (any, error) {
	object := &unstructured.Unstructured{Object: asked.Object}
	switch asked.Ask {
	case "health":
		return vm.ExecuteHealthLua(object, asked.Script)
	case "discovery":
		return vm.ExecuteResourceActionDiscovery(object, []string{asked.Script})
	case "action":
		changed, err := vm.ExecuteResourceAction(object, asked.Script, nil)
		if err != nil {
			return nil, err
		}
		found := []any{}
		for _, one := range changed {
			found = append(found, map[string]any{"operation": one.K8SOperation, "object": one.UnstructuredObj.Object})
		}
		return found, nil
	}
	if asked.Ask == "diff" {
		git := &unstructured.Unstructured{Object: asked.Git}
		found, err := diff.Diff(git, object, diff.WithLogr(logr.Discard()))
		if err != nil {
			return nil, err
		}
		return map[string]any{
			"outOfSync": found.Modified, "live": string(found.NormalizedLive), "wanted": string(found.PredictedLive),
		}, nil
	}
	return nil, fmt.Errorf("nobody knows how to answer %q", asked.Ask)
}

func main() {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	// Without the further libraries, as Argo CD runs custom scripts.
	vm := lua.VM{UseOpenLibs: false}
	answers := []map[string]any{}
	for _, asked := range questions {
		found, err := answered(vm, asked)
		answer := map[string]any{"answer": found}
		if err != nil {
			answer = map[string]any{"error": err.Error()}
		}
		answers = append(answers, answer)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answers); err != nil {
		os.Exit(1)
	}
}
