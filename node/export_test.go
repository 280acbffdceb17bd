package node

// CutBefore has f called before each write that must last; its error ends the
// flow as a power cut would.
func (n *Node) CutBefore(f func(step string) error) { n.cut = f }

// Abandon ends what goes on in the background, as a power cut does.
func (n *Node) Abandon() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.interrupt()
}
