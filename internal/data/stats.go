package data

import "slices"

// Stats describe a set of rows.
type Stats struct {
	Set     string         `json:"set"`
	File    string         `json:"file"`
	Rows    int            `json:"rows"`
	Tokens  int            `json:"tokens"` // of input and target, as the other lengths
	Median  int            `json:"median_tokens"`
	P95     int            `json:"p95_tokens"`
	Longest int            `json:"longest_tokens"`
	Equal   int            `json:"equal_texts"`       // rows with the text of an earlier row
	Shared  int            `json:"texts_of_training"` // rows of another set with a training text
	Dropped int            `json:"dropped"`
	Cut     int            `json:"cut"`
	Classes map[string]int `json:"classes,omitempty"` // rows of each label
}

// StatsOf returns the stats of a training set and of other sets, in this order. Sets are not empty.
func StatsOf(train *Set, others []*Set, labels []Label) []Stats {
	trained := map[string]bool{}
	for _, r := range train.Rows {
		trained[r.Text] = true
	}
	all := []Stats{statsOf(train, nil, labels)}
	for _, set := range others {
		all = append(all, statsOf(set, trained, labels))
	}
	return all
}

func statsOf(set *Set, trained map[string]bool, labels []Label) Stats {
	x := Stats{Set: set.Name, File: set.Path, Rows: len(set.Rows), Dropped: set.Dropped, Cut: set.Cut}
	var lengths []int
	seen := map[string]bool{}
	for _, r := range set.Rows {
		n := len(r.Input) + len(r.Target)
		lengths, x.Tokens = append(lengths, n), x.Tokens+n
		if seen[r.Text] {
			x.Equal++
		}
		seen[r.Text] = true
		if trained[r.Text] {
			x.Shared++
		}
		if r.Label >= 0 {
			if x.Classes == nil {
				x.Classes = map[string]int{}
			}
			x.Classes[labels[r.Label].Name]++
		}
	}
	slices.Sort(lengths)
	n := len(lengths)
	x.Median, x.P95, x.Longest = lengths[n/2], lengths[n*95/100], lengths[n-1]
	return x
}
