package batch

import "slices"

// Kept returns how many rows a step keeps activations of at a time if the forest is split: those of the
// trunk and of the largest part.
func (f *Forest) Kept(limit int) int {
	trunk, parts, _ := f.Split(limit)
	most := 0
	for _, p := range parts {
		most = max(most, p.Rows())
	}
	return trunk.Rows() + most
}

// Split divides a forest into a trunk and parts that are computed one after the other. The trunk has
// the soft prompts and all segments with children. The leaves are divided into ⌈rows/limit⌉ parts of
// about equal size; a leaf is never cut, so a part can exceed limit. A shared prefix is still computed
// once, while a step keeps activations of only the trunk and one part at a time. partOf is the index of
// each target's part, -1 for the trunk; targets keep their order in each. If one part would hold all
// leaves, Split returns f itself and no parts.
func (f *Forest) Split(limit int) (trunk *Forest, parts []*Forest, partOf []int) {
	shared := make([]bool, len(f.Segments)) // belongs to the trunk
	for i, s := range f.Segments {
		shared[i] = s.Row < f.Prompts
		if s.Parent >= 0 {
			shared[s.Parent] = true
		}
	}
	leaves := 0
	for i, s := range f.Segments {
		if !shared[i] {
			leaves += s.Len
		}
	}
	if limit < 1 || leaves <= limit {
		return f, nil, nil
	}
	count := (leaves-1)/limit + 1
	trunk = &Forest{Prompts: f.Prompts}
	index := make([]int, len(f.Segments))                      // of each segment in its new forest
	row, owner := make([]int, f.Rows()), make([]int, f.Rows()) // each row's new number, and its part
	move := func(to *Forest, i, part int) {
		s := f.Segments[i]
		ids := f.IDs[s.Row : s.Row+s.Len]
		first := to.TrunkRows + to.Rows()
		for k := range ids {
			row[s.Row+k], owner[s.Row+k] = first+k, part
		}
		index[i], s.Row = len(to.Segments), first
		if s.Parent >= 0 {
			s.Parent = index[s.Parent]
		}
		to.Segments, to.IDs = append(to.Segments, s), append(to.IDs, ids...)
	}
	for i := range f.Segments {
		if shared[i] {
			move(trunk, i, -1)
		}
	}
	done, last := 0, -1
	for i, s := range f.Segments {
		if shared[i] {
			continue
		}
		// A leaf belongs to the part that its middle row falls into.
		if at := (2*done + s.Len) * count / (2 * leaves); at > last {
			p := &Forest{TrunkRows: trunk.Rows(), Segments: slices.Clone(trunk.Segments)}
			parts, last = append(parts, p), at
		}
		move(parts[len(parts)-1], i, len(parts)-1)
		done += s.Len
	}
	if len(parts) < 2 {
		return f, nil, nil
	}
	for _, t := range f.Targets {
		part, to := owner[t.Row], trunk
		if part >= 0 {
			to = parts[part]
		}
		t.Row = row[t.Row]
		partOf, to.Targets = append(partOf, part), append(to.Targets, t)
	}
	return trunk, parts, partOf
}
