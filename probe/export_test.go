package probe

// SecondVoice is what go-blockdevice alone says.
func SecondVoice(a Area) ([]Finding, error) {
	v, err := newView(a, signatureEdge)
	if err != nil {
		return nil, err
	}
	return secondVoice(v)
}

// Row is a row of the signature table, for tests.
type Row struct {
	Kind, Magic string
	Offset      func(size int64) int64
}

// Rows returns the signature table.
func Rows() []Row {
	var rows []Row
	for _, s := range table() {
		rows = append(rows, Row{s.kind, s.magic, s.offset})
	}
	return rows
}
