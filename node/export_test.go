package node

// CutBefore has f called before each write that must last; its error ends the
// flow as a power cut would.
func (n *Node) CutBefore(f func(step string) error) { n.cut = f }

// Flow runs f while no flow runs.
func (n *Node) Flow(f func()) {
	n.turns.held <- struct{}{}
	defer func() { <-n.turns.held }()
	f()
}

// Abandon ends what goes on in the background, as a power cut does.
func (n *Node) Abandon() {
	n.Flow(func() {
		n.interrupt()
		n.endTrial()
	})
}
