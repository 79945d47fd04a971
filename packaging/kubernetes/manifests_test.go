// Package kubernetes checks the manifests against the types of the Kubernetes API. It is a module of its
// own, so that ptune does not depend on them: make manifests.
package kubernetes

import (
	"bytes"
	"errors"
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// strictly reads a document as the API server does with strict validation: names have their case, and all
// fields are known.
func strictly(document []byte, object any) error {
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return err
	}
	unknown, err := json.UnmarshalStrict(text, object)
	return errors.Join(append(unknown, err)...)
}

func TestTheManifestsHaveOnlyFieldsOfTheAPI(t *testing.T) {
	for _, path := range []string{"tasks.yaml", "../kubernetes.yaml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, document := range bytes.Split(text, []byte("\n---\n")) {
			var kind struct{ Kind, APIVersion string }
			if err := yaml.Unmarshal(document, &kind); err != nil {
				t.Fatalf("%s, document %d: %v", path, i+1, err)
			}
			object := map[string]any{
				"batch/v1 Job": &batchv1.Job{}, "apps/v1 Deployment": &appsv1.Deployment{}, "v1 Service": &corev1.Service{},
			}[kind.APIVersion+" "+kind.Kind]
			if object == nil {
				t.Errorf("%s, document %d is a %s of %s, which this test does not know", path, i+1, kind.Kind,
					kind.APIVersion)
			} else if err := strictly(document, object); err != nil {
				t.Errorf("%s, document %d: %v", path, i+1, err)
			}
		}
	}
}

// What the API server's validation asks of an Indexed Job with a limit for each index.
func TestTheJobIsValid(t *testing.T) {
	text, err := os.ReadFile("tasks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var job batchv1.Job
	if err := strictly(text, &job); err != nil {
		t.Fatal(err)
	}
	s := job.Spec
	if s.CompletionMode == nil || *s.CompletionMode != batchv1.IndexedCompletion || s.BackoffLimitPerIndex == nil ||
		s.MaxFailedIndexes == nil || s.Completions == nil || *s.MaxFailedIndexes > *s.Completions {
		t.Error("an index of its own limit needs completionMode Indexed and maxFailedIndexes up to completions")
	}
	if s.PodReplacementPolicy == nil || *s.PodReplacementPolicy != batchv1.Failed ||
		s.Template.Spec.RestartPolicy != corev1.RestartPolicyNever || s.PodFailurePolicy == nil {
		t.Fatal("a podFailurePolicy needs restartPolicy Never and podReplacementPolicy Failed")
	}
	for i, r := range s.PodFailurePolicy.Rules {
		switch r.Action {
		case batchv1.PodFailurePolicyActionFailIndex, batchv1.PodFailurePolicyActionFailJob:
			if r.OnExitCodes == nil || r.OnExitCodes.Operator != batchv1.PodFailurePolicyOnExitCodesOpIn ||
				len(r.OnExitCodes.Values) == 0 || len(r.OnPodConditions) > 0 {
				t.Errorf("rule %d: %s needs exit codes", i+1, r.Action)
			}
		case batchv1.PodFailurePolicyActionIgnore:
			if len(r.OnPodConditions) == 0 || r.OnPodConditions[0].Type != corev1.DisruptionTarget {
				t.Errorf("rule %d: %s needs the condition DisruptionTarget", i+1, r.Action)
			}
		default:
			t.Errorf("rule %d: the API has no action %q", i+1, r.Action)
		}
	}
	for _, c := range s.Template.Spec.Containers {
		for _, m := range c.VolumeMounts {
			found := false
			for _, v := range s.Template.Spec.Volumes {
				found = found || v.Name == m.Name
			}
			if !found {
				t.Errorf("container %s mounts %s, which is no volume", c.Name, m.Name)
			}
		}
	}
}
