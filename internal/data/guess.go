package data

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Guess is what the fields of a file of rows seem to be for.
type Guess struct {
	Reading           // as found out, with Columns if the first line is a row
	Fields   []string // that are texts, in the order of the file
	Messages string   // the field with a conversation; if set, Texts and Target are empty
	Texts    []string // the fields of the input
	Target   string   // the field of the target
	Labels   []Label  // if Target is a class: its values, most frequent first
	Rows     int
	Notes    []string // what was found out, and what may be a mistake in the rows
}

// Roles are the fields whose use is known. What is empty is guessed.
type Roles struct {
	Texts  []string
	Target string
}

// Usual names of fields of either kind, the least ambiguous first.
var (
	targetNames = []string{
		"label", "labels", "class", "category", "intent", "sentiment", "target", "completion", "answer",
		"output", "response", "summary", "translation",
	}
	textNames = []string{
		"text", "sentence", "instruction", "input", "prompt", "question", "message", "review", "content",
		"document", "body", "premise", "hypothesis", "sentence1", "sentence2", "context", "title",
	}
)

// mostLabels is the largest number of values that a class can have.
const mostLabels = 200

// meanLabel is the largest mean length of a class's values, in bytes.
const meanLabel = 40

// guesser is a file's rows with statistics of its fields.
type guesser struct {
	*Guess
	name    string // of the file
	rows    []record
	columns map[string]*column
}

// column is a field of all rows.
type column struct {
	values map[string]*value // without those that mean that there is none
	order  int               // its position in the rows
	length int               // of all values together, in bytes
	wordy  int               // number of rows with two words or more
	filled int               // number of rows with a value
}

// value is a value of a field.
type value struct{ rows, line int } // line: of the first row that has it

// Look reads a file and guesses what its fields are for: first by their names, then by their values.
// Rows that cannot be read are an error, as are rows without a label where others have one.
func Look(s Source, known Roles) (*Guess, error) {
	g := &guesser{Guess: &Guess{}, name: s.Name()}
	if err := g.read(s); err != nil {
		return nil, err
	}
	if err := g.count(s.stopped); err != nil {
		return nil, err
	}
	if err := g.choose(known); err != nil || g.Messages != "" {
		return g.Guess, err
	}
	if g.isClass(g.Target) {
		if err := g.label(); err != nil {
			return nil, err
		}
	}
	g.nameColumns()
	return g.Guess, nil
}

// read reads the rows, and reads them again if the first line is one.
func (g *guesser) read(s Source) error {
	collect := func() (*reader, error) {
		g.rows = nil
		return s.records(func(x record) { g.rows = append(g.rows, x) })
	}
	r, err := collect()
	if err == nil && s.Columns == nil && headless(g.rows, r.names) {
		for i := range r.names {
			s.Columns = append(s.Columns, fmt.Sprintf("column%d", i+1))
		}
		r, err = collect()
	}
	if err != nil {
		return err
	}
	var wrong Mistakes
	for _, x := range g.rows {
		if x.err != nil {
			wrong.Add(g.place(x), x.err)
		}
	}
	g.Reading, g.Rows, g.Notes = r.found(), len(g.rows), r.notes
	return wrong.Err()
}

// headless reports whether a table's first line is a row and no header: one of its cells is a value
// that several rows have in a column of few values. Rows equal to the first line do not count, since
// they can be a header that is repeated.
func headless(rows []record, names []string) bool {
	for _, name := range names {
		same, values := 0, map[string]bool{}
		for _, x := range rows {
			if f, ok := x.fields[name]; ok && f.Not == "" {
				values[f.Text] = true
				if f.Text == name {
					same++
				}
			}
		}
		if same >= 2 && len(values) <= mostLabels && len(values) <= max(2, len(rows)/3) {
			return true
		}
	}
	return false
}

// noValue matches values that mean that there is none.
var noValue = regexp.MustCompile(`(?i)^\s*(nan|null|<na>|#n/a)?\s*$`)

// words matches a text of two words or of ten letters of a script that may not separate words.
var words = regexp.MustCompile(`\pL{2}\PL+\pL{2}|[^\PL\p{Latin}]{10}`)

// count fills Fields and columns, unless it is stopped.
func (g *guesser) count(stopped func() error) error {
	g.columns = map[string]*column{}
	for _, x := range g.rows {
		if err := stopped(); err != nil {
			return err
		}
		for name, f := range x.fields {
			if f.Not != "" {
				continue
			}
			c := g.columns[name]
			if c == nil {
				c = &column{values: map[string]*value{}, order: f.place}
				g.columns[name] = c
				g.Fields = append(g.Fields, name)
			}
			if noValue.MatchString(f.Text) {
				continue
			}
			v := c.values[f.Text]
			if v == nil {
				v = &value{line: x.line}
				c.values[f.Text] = v
			}
			v.rows++
			c.filled++
			c.length += len(f.Text)
			if words.MatchString(f.Text) {
				c.wordy++
			}
		}
	}
	slices.SortFunc(g.Fields, func(a, b string) int {
		return cmp.Or(cmp.Compare(g.columns[a].order, g.columns[b].order), cmp.Compare(a, b))
	})
	return nil
}

// isClass reports whether a field has few enough values to be a class.
func (g *guesser) isClass(field string) bool {
	c := g.columns[field]
	if c == nil {
		return false
	}
	n := len(c.values)
	return n >= 2 && n <= mostLabels && n <= max(2, g.Rows/3) && c.length < meanLabel*g.Rows
}

// choose sets Messages, or Texts and Target.
func (g *guesser) choose(known Roles) error {
	for _, name := range append(slices.Clone(known.Texts), known.Target) {
		if name != "" && g.columns[name] == nil {
			return fmt.Errorf("%s: no row has a text in the field %q; the fields are %s",
				g.name, name, g.listed(g.Fields))
		}
	}
	if len(known.Texts) == 0 && known.Target == "" {
		if g.Messages = g.conversations(); g.Messages != "" {
			return nil
		}
	}
	free := without(g.Fields, known.Texts)
	g.Target = known.Target
	if g.Target == "" {
		g.Target = pick(free, targetNames, g.isClass, func(a, b string) int {
			return cmp.Compare(len(g.columns[a].values), len(g.columns[b].values))
		})
	}
	if g.Texts = known.Texts; len(g.Texts) == 0 {
		g.chooseTexts()
	}
	if len(g.Texts) == 0 || g.Target == "" {
		return fmt.Errorf("%s: cannot tell which field is the input and which the target; the fields are %s",
			g.name, g.listed(g.Fields))
	}
	if slices.Contains(g.Texts, g.Target) {
		return fmt.Errorf("the field %q is given as input and as target", g.Target)
	}
	if known.Target == "" && g.isClass(g.Target) {
		var others []string
		for _, f := range without(free, append(slices.Clone(g.Texts), g.Target)) {
			if g.isClass(f) && g.names(f) == nil {
				others = append(others, f)
			}
		}
		if len(others) > 0 {
			g.note("the label is %s; it could also be %s (--label chooses)",
				g.listed([]string{g.Target}), g.listed(others))
		}
	}
	if len(known.Texts) == 0 && len(g.Texts) > 1 {
		g.note("the input is made of the fields %s (--text chooses)", g.listed(g.Texts))
	}
	return nil
}

// chooseTexts sets Texts to the fields with one of the usual names or with words in them, except
// other labels and fields that end in the target.
func (g *guesser) chooseTexts() {
	named := func(f string, names []string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(f, n) })
	}
	var fields []string
	for _, f := range g.Fields {
		// A field with at most as many values as the class is another label.
		label := g.isClass(g.Target) && len(g.columns[f].values) <= len(g.columns[g.Target].values)
		switch {
		case f == g.Target, named(f, targetNames), label && !named(f, textNames), g.columns[f].filled == 0:
		case g.endsInTarget(f):
			g.note("the field %q ends in the target and is left out of the input", f)
		default:
			fields = append(fields, f)
		}
	}
	best := pick(fields, textNames, func(string) bool { return true }, func(a, b string) int {
		return cmp.Compare(g.columns[b].length, g.columns[a].length)
	})
	for _, f := range fields {
		c := g.columns[f]
		if f == best || named(f, textNames) || c.wordy > c.filled/2 && !g.isClass(f) {
			g.Texts = append(g.Texts, f)
		}
	}
}

// endsInTarget reports whether a field has the target or its name at the end in nearly all rows.
func (g *guesser) endsInTarget(field string) bool {
	if g.Target == "" {
		return false
	}
	names := map[string]string{}
	for _, f := range g.Fields {
		if f != field {
			if n := g.names(f); n != nil {
				names = n
			}
		}
	}
	ends, rows := 0, 0
	for _, x := range g.rows {
		target := strings.TrimSpace(cmp.Or(names[x.fields[g.Target].Text], x.fields[g.Target].Text))
		if text := x.fields[field].Text; target != "" && strings.TrimSpace(text) != "" {
			rows++
			if strings.HasSuffix(strings.TrimSpace(text), target) {
				ends++
			}
		}
	}
	return ends > 0 && ends >= rows*9/10
}

// conversations returns the first field with a conversation; empty without one.
func (g *guesser) conversations() string {
	for _, x := range g.rows {
		var lists []string
		for name, f := range x.fields {
			if f.list != nil {
				lists = append(lists, name)
			}
		}
		slices.Sort(lists)
		for _, name := range lists {
			if turns, err := conversation(x.fields[name].list); err == nil && len(turns) > 0 {
				return name
			}
		}
	}
	return ""
}

// label sets Labels. Rows without a label are an error. Labels that may be mistakes are noted.
func (g *guesser) label() error {
	var missing Mistakes
	for _, x := range g.rows {
		f, ok := x.fields[g.Target]
		switch {
		case !ok:
			missing.Add(g.place(x),
				fmt.Errorf("the row has no field %q; give it a label or delete it", g.Target))
		case f.Not != "":
			missing.Add(g.place(x), fmt.Errorf("the row has no label, its %q is %s; give it one or delete it",
				g.Target, f.Not))
		case noValue.MatchString(f.Text):
			missing.Add(g.place(x), fmt.Errorf("the row has no label, its %q is %q; give it one or delete it",
				g.Target, f.Text))
		}
	}
	if err := missing.Err(); err != nil {
		return err
	}
	values := g.columns[g.Target].values
	var names map[string]string
	for _, f := range g.Fields {
		if names == nil && f != g.Target && !slices.Contains(g.Texts, f) {
			names = g.names(f)
		}
	}
	for v := range values {
		g.Labels = append(g.Labels, Label{v, cmp.Or(names[v], v)})
	}
	slices.SortFunc(g.Labels, func(a, b Label) int {
		return cmp.Or(cmp.Compare(values[b.Value].rows, values[a.Value].rows),
			strings.Compare(a.Value, b.Value))
	})
	g.noteRare(values, g.noteLabels(values))
	return nil
}

// unclear matches labels that may mean that there is none.
var unclear = regexp.MustCompile(`(?i)^\s*(none|na|n/a|unknown|undefined|-+|\?+)\s*$`)

// noteLabels adds notes on labels that may be mistakes in the rows, and returns these labels.
func (g *guesser) noteLabels(values map[string]*value) map[string]bool {
	alike, noted := map[string][]string{}, map[string]bool{}
	for _, l := range g.Labels {
		v, where := l.Value, fmt.Sprintf("in line %d", values[l.Value].line)
		if n := values[l.Value].rows; n > 1 {
			where = fmt.Sprintf("in %d rows, the first in line %d", n, values[l.Value].line)
		}
		switch {
		case strings.EqualFold(strings.TrimSpace(v), g.Target):
			g.note("the label %q is the name of its field (%s)", v, where)
			noted[v] = true
		case unclear.MatchString(v):
			g.note("the label %q may mean that there is none (%s)", v, where)
			noted[v] = true
		}
		key := likeness(v)
		alike[key] = append(alike[key], fmt.Sprintf("%q (%s)", v, where))
	}
	told := map[string]bool{}
	for _, l := range g.Labels {
		key := likeness(l.Value)
		if same := alike[key]; len(same) > 1 {
			if noted[l.Value] = true; !told[key] {
				g.note("these labels are nearly equal, but each is a class: %s", strings.Join(same, ", "))
			}
			told[key] = true
		}
	}
	return noted
}

// likeness returns what labels have in common that differ only in case, blanks or how a number is
// written.
func likeness(label string) string {
	key := strings.ToLower(strings.Join(strings.Fields(label), " "))
	if x, err := strconv.ParseFloat(key, 64); err == nil {
		return strconv.FormatFloat(x, 'g', -1, 64)
	}
	return key
}

// fewRows is the number of rows below which a label is hardly learned, and rareShare the share of the rows of
// a mean label below which it is rare.
const (
	fewRows   = 5
	rareShare = 0.25
)

// noteRare adds a note on labels with few rows among labels with many: typing errors, and classes that the
// rows do not show. Labels that were noted before are left out.
func (g *guesser) noteRare(values map[string]*value, noted map[string]bool) {
	var rare []string
	for _, l := range g.Labels {
		v := values[l.Value]
		if !noted[l.Value] && v.rows < fewRows && float64(v.rows) < rareShare*float64(g.Rows)/float64(len(g.Labels)) {
			rare = append(rare, fmt.Sprintf("%q (%d, the first in line %d)", l.Value, v.rows, v.line))
		}
	}
	if more := len(rare) - shownNames; more > 0 {
		rare = append(rare[:shownNames], fmt.Sprintf("and %d more", more))
	}
	if rare != nil {
		g.note("these labels have too few rows to be learned, if they are not typing errors: %s",
			strings.Join(rare, ", "))
	}
}

// names returns the name of each label if the labels are numbers and field has one name for each; nil
// otherwise.
func (g *guesser) names(field string) map[string]string {
	number := func(s string) bool { return strings.Trim(s, "0123456789-.") == "" }
	if field == g.Target || len(g.columns[field].values) != len(g.columns[g.Target].values) {
		return nil
	}
	names := map[string]string{}
	for _, x := range g.rows {
		v, name := x.fields[g.Target].Text, x.fields[field].Text
		if old, ok := names[v]; !number(v) || number(name) || ok && old != name {
			return nil
		}
		names[v] = name
	}
	return names
}

// nameColumns gives the columns of a table without a header names that say what they are for.
func (g *guesser) nameColumns() {
	rename := func(from, to string) string {
		if n := slices.Index(g.Columns, from); n >= 0 && strings.HasPrefix(from, "column") {
			g.Columns[n] = to
			g.Fields[slices.Index(g.Fields, from)] = to
			return to
		}
		return from
	}
	g.Texts[0] = rename(g.Texts[0], "text")
	g.Target = rename(g.Target, "label")
}

// place returns where a row is.
func (g *guesser) place(x record) string { return fmt.Sprintf("%s:%d", g.name, x.line) }

func (g *guesser) note(format string, args ...any) {
	g.Notes = append(g.Notes, g.name+": "+fmt.Sprintf(format, args...))
}

// listed returns fields for a message, with the number of values of those that can be classes.
func (g *guesser) listed(fields []string) string {
	if len(fields) == 0 {
		return "none"
	}
	var all []string
	for _, f := range fields {
		text := fmt.Sprintf("%q", f)
		if g.isClass(f) {
			text += fmt.Sprintf(" (%d values)", len(g.columns[f].values))
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// pick returns the field with the first of the usual names, else the first in order of the fields
// that may do; empty if there is none.
func pick(fields, names []string, may func(string) bool, order func(a, b string) int) string {
	for _, n := range names {
		for _, f := range fields {
			if strings.EqualFold(f, n) {
				return f
			}
		}
	}
	fields = slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return !may(f) })
	if len(fields) == 0 {
		return ""
	}
	return slices.MinFunc(fields, order)
}

// without returns the fields that are not in some.
func without(fields, some []string) []string {
	return slices.DeleteFunc(slices.Clone(fields), func(f string) bool { return slices.Contains(some, f) })
}
