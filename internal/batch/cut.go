package batch

import "slices"

// Kept is how many rows a step keeps values of at a time where the forest is cut: the trunk's and those of the largest part.
func (f *Forest) Kept(limit int) int {
	trunk, parts, _ := f.Cut(limit)
	most := 0
	for _, p := range parts {
		most = max(most, p.Rows())
	}
	return trunk.Rows() + most
}

// Cut shares a forest's leaves out in parts of about as many rows, limit or fewer, to the nearest leaf; they are computed one after the
// other behind the trunk: the soft prompts and all segments that others hang from. So what is shared is still computed once, while a
// step keeps values of the trunk and of one part at a time. of says for each target which part it is in, -1 for the trunk; in both,
// targets keep their order. Where one part would hold all leaves there are none.
func (f *Forest) Cut(limit int) (trunk *Forest, parts []*Forest, of []int) {
	shared := make([]bool, len(f.Segments))
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
	number := make([]int, len(f.Segments))                     // of a segment in its new forest
	row, owner := make([]int, f.Rows()), make([]int, f.Rows()) // of a row: where it is then, and its part
	move := func(to *Forest, i, part int) {
		s := f.Segments[i]
		ids := f.IDs[s.Row : s.Row+s.Len]
		first := to.Above + to.Rows()
		for k := range ids {
			row[s.Row+k], owner[s.Row+k] = first+k, part
		}
		if number[i], s.Row = len(to.Segments), first; s.Parent >= 0 {
			s.Parent = number[s.Parent]
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
		if at := (2*done + s.Len) * count / (2 * leaves); at > last { // where the leaf's middle is
			parts, last = append(parts, &Forest{Above: trunk.Rows(), Segments: slices.Clone(trunk.Segments)}), at
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
		of, to.Targets = append(of, part), append(to.Targets, t)
	}
	return trunk, parts, of
}
