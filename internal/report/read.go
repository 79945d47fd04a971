package report

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
)

// Log is the events of a run as read from events.jsonl.
type Log struct {
	Start Start
	Steps []Step
	Evals []Eval
	End   *End // nil: the run was interrupted or is still running
}

// UnmarshalJSON reads n; null is NaN.
func (n *Number) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*n = Number(math.NaN())
		return nil
	}
	return json.Unmarshal(text, (*float64)(n))
}

// Read reads the output of JSONL. It ignores an incomplete last line.
func Read(r io.Reader) (*Log, error) {
	log := &Log{}
	in := bufio.NewScanner(r)
	in.Buffer(nil, 16<<20)
	var broken error
	for line := 1; in.Scan(); line++ {
		if broken != nil {
			return nil, broken
		}
		var kind struct {
			Event string `json:"event"`
		}
		err := json.Unmarshal(in.Bytes(), &kind)
		switch {
		case err != nil:
		case kind.Event == "start":
			log.End, log.Start = nil, Start{} // a run that continues: a new one empties the file
			err = json.Unmarshal(in.Bytes(), &log.Start)
		case kind.Event == "step":
			var s Step
			if err = json.Unmarshal(in.Bytes(), &s); err == nil {
				log.Steps = append(log.Steps, s)
			}
		case kind.Event == "eval":
			var e Eval
			if err = json.Unmarshal(in.Bytes(), &e); err == nil {
				log.Evals = append(log.Evals, e)
			}
		case kind.Event == "end":
			log.End = &End{}
			err = json.Unmarshal(in.Bytes(), log.End)
		}
		if err != nil {
			broken = fmt.Errorf("line %d: %w", line, err)
		}
	}
	return log, in.Err()
}
