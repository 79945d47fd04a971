package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// The programs of Slurm are stood in for: srun runs its command, scontrol notes its arguments.
func TestTheSlurmScriptTrainsItsPartAndPutsTheJobBackIntoTheQueue(t *testing.T) {
	dir := repository(t)
	script, err := filepath.Abs("../../packaging/slurm/tasks.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"bin/srun": "#!/bin/sh\nexec \"$@\"\n", "bin/scontrol": "#!/bin/sh\necho \"$@\" >requeued\n",
		"tasks.txt": "none.yaml\nconfigs/stars.yaml --set train.steps=1 --set data.valid= --set output.prompt=p.st\n" +
			"configs/stars.yaml --set train.steps=x\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		part, restarts string
		code           int
		out, requeued  string
	}{
		{"1", "0", 0, "p.st\n", ""},
		{"1", "0", 0, "p.st\n", ""},       // done
		{"2", "0", exitTaskWrong, "", ""}, // again would fail again
		{"0", "0", 0, "", "requeue 7_0\n"},
		{"0", "10", exitTryAgain, "", ""}, // often enough
	} {
		os.Remove(filepath.Join(dir, "requeued"))
		cmd := exec.Command("sh", script, "tasks.txt")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"),
			"SLURM_ARRAY_JOB_ID=7", "SLURM_ARRAY_TASK_ID="+c.part, "SLURM_ARRAY_TASK_COUNT=3",
			"SLURM_RESTART_COUNT="+c.restarts)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, _ := cmd.Output()
		requeued, _ := os.ReadFile(filepath.Join(dir, "requeued"))
		if code := cmd.ProcessState.ExitCode(); code != c.code || string(out) != c.out ||
			string(requeued) != c.requeued {
			t.Errorf("part %s: exit code %d, stdout %q, scontrol %q, want %d, %q, %q\n%s", c.part, code, out,
				requeued, c.code, c.out, c.requeued, stderr.String())
		}
	}
}

func TestTheKubernetesJobKnowsTheExitCodesAndItsParts(t *testing.T) {
	text, err := os.ReadFile("../../packaging/kubernetes/tasks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var job struct {
		Spec struct {
			Completions      int
			MaxFailedIndexes int `yaml:"maxFailedIndexes"`
			PodFailurePolicy struct {
				Rules []struct {
					Action      string
					OnExitCodes struct {
						ContainerName string `yaml:"containerName"`
						Values        []int
					} `yaml:"onExitCodes"`
				}
			} `yaml:"podFailurePolicy"`
			Template struct {
				Spec struct {
					Containers []struct {
						Name string
						Args []string
					}
				}
			}
		}
	}
	if err := yaml.Unmarshal(text, &job); err != nil {
		t.Fatal(err)
	}
	c := job.Spec.Template.Spec.Containers[0]
	for _, r := range job.Spec.PodFailurePolicy.Rules {
		want := map[string]int{"FailIndex": exitTaskWrong, "FailJob": exitUsage}[r.Action]
		if want != 0 && (!slices.Equal(r.OnExitCodes.Values, []int{want}) || r.OnExitCodes.ContainerName != c.Name) {
			t.Errorf("%s is for the exit codes %v of %q, want %d of %q", r.Action, r.OnExitCodes.Values,
				r.OnExitCodes.ContainerName, want, c.Name)
		}
	}
	cmd, args, err := newRoot(streams{}).Find(c.Args)
	if err != nil || cmd.Name() != "train" {
		t.Fatalf("the command of %v is %v (%v)", c.Args, cmd, err)
	}
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	shards := cmd.Flags().Lookup("shards").Value.String()
	if n := strconv.Itoa(job.Spec.Completions); n != shards || job.Spec.MaxFailedIndexes != job.Spec.Completions {
		t.Errorf("%s completions, %d may fail, %s shards; want the same number", n, job.Spec.MaxFailedIndexes, shards)
	}
}
