package prompt

import "slices"

// Neighbor is a token of the vocabulary and the cosine of its embedding with a virtual token.
type Neighbor struct {
	ID     int
	Cosine float64
}

// Nearest returns for each virtual token the top tokens whose embeddings have the largest cosine
// with it, the largest first and the lower id first among equals. A cosine with a zero vector is 0.
// meanNorm is the mean norm of all embedding rows. Of s, Vocab and Row are used.
func (p *Prompt) Nearest(s Source, top int) (nearest [][]Neighbor, meanNorm float64) {
	nearest = make([][]Neighbor, p.Rows)
	norms := make([]float64, p.Rows)
	for i := range norms {
		norms[i] = Norm(p.Row(i))
	}
	for id := range s.Vocab {
		row := s.Row(id)
		norm := Norm(row)
		meanNorm += norm / float64(s.Vocab)
		for i := range nearest {
			var dot float64
			for k, v := range p.Row(i) {
				dot += float64(v) * float64(row[k])
			}
			cosine := 0.0
			if n := norm * norms[i]; n > 0 {
				cosine = dot / n
			}
			nearest[i] = insertNeighbor(nearest[i], Neighbor{id, cosine}, top)
		}
	}
	return nearest, meanNorm
}

// insertNeighbor inserts n into list, sorted by falling cosine, and keeps the first top.
func insertNeighbor(list []Neighbor, n Neighbor, top int) []Neighbor {
	at, _ := slices.BinarySearchFunc(list, n.Cosine, func(x Neighbor, cosine float64) int {
		if x.Cosine >= cosine {
			return -1
		}
		return 1
	})
	list = slices.Insert(list, at, n)
	return list[:min(top, len(list))]
}
