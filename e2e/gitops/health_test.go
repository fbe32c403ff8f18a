// What GitOps tools make of the conditions: Argo CD by the checks in integrations/argocd, and Flux by kstatus itself.
package gitops

import (
	"os"
	"testing"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

type reading struct {
	What    string                 `json:"what"`
	ArgoCD  string                 `json:"argocd"`
	Kstatus string                 `json:"kstatus"`
	Says    string                 `json:"says"`
	Object  map[string]interface{} `json:"object"`
}

func read(t *testing.T, path string, into interface{}) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// The libraries are those that Argo CD opens for a check of somebody's own; there is no string library among them.
func argocd(t *testing.T, check string, object map[string]interface{}) (string, string) {
	t.Helper()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		call := lua.P{Fn: state.NewFunction(open), Protect: true}
		if err := state.CallByParam(call, lua.LString(name)); err != nil {
			t.Fatal(err)
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(check); err != nil {
		t.Fatal(err)
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the check returns a %s", state.Get(-1).Type())
	}
	return health.RawGetString("status").String(), health.RawGetString("message").String()
}

func value(state *lua.LState, from interface{}) lua.LValue {
	switch from := from.(type) {
	case string:
		return lua.LString(from)
	case int64:
		return lua.LNumber(from)
	case bool:
		return lua.LBool(from)
	case []interface{}:
		table := state.NewTable()
		for _, item := range from {
			table.Append(value(state, item))
		}
		return table
	case map[string]interface{}:
		table := state.NewTable()
		for key, item := range from {
			table.RawSetString(key, value(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}

func TestEveryStateIsReadAsItIs(t *testing.T) {
	var config struct {
		Data map[string]string `json:"data"`
	}
	text, err := os.ReadFile("../../integrations/argocd/argocd-cm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	var readings []reading
	read(t, "states.yaml", &readings)
	kinds := map[string]int{}
	for _, wanted := range readings {
		t.Run(wanted.What, func(t *testing.T) {
			encoded, err := yaml.Marshal(wanted.Object)
			if err != nil {
				t.Fatal(err)
			}
			object := &unstructured.Unstructured{}
			// Through JSON, so that numbers are of the type that a client's are.
			asJSON, err := yaml.YAMLToJSON(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if err := object.UnmarshalJSON(asJSON); err != nil {
				t.Fatal(err)
			}
			kinds[object.GetKind()]++
			check := config.Data["resource.customizations.health.hebb.dev_"+object.GetKind()]
			if check == "" {
				t.Fatalf("there is no check for %s", object.GetKind())
			}
			health, message := argocd(t, check, object.Object)
			if health != wanted.ArgoCD || message != wanted.Says {
				t.Errorf("Argo CD: %s %q, but wanted: %s %q", health, message, wanted.ArgoCD, wanted.Says)
			}
			computed, err := status.Compute(object)
			if err != nil {
				t.Fatal(err)
			}
			if string(computed.Status) != wanted.Kstatus {
				t.Errorf("kstatus: %s (%s), but wanted: %s", computed.Status, computed.Message, wanted.Kstatus)
			}
		})
	}
	if kinds["LearningCluster"] == 0 || kinds["AlertPolicy"] == 0 {
		t.Errorf("a kind has no state: %v", kinds)
	}
}
