package blob

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// ErrNode is wrapped by errors about a node name that cannot be one.
var ErrNode = errors.New("not a node UUID")

// Node is a node's UUID in its canonical form: 36 characters, lower case. It is
// made by [ParseNode] only, so that two spellings are never two nodes.
type Node string

// ParseNode reads a UUID of the usual form, in any case. The two UUIDs that
// firmware without an identity reports, all zeros and all ones, are refused:
// every such machine would be the same node.
func ParseNode(s string) (Node, error) {
	if len(s) != 36 {
		return "", fmt.Errorf("%w: %d characters, it must have 36", ErrNode, len(s))
	}
	id, err := uuid.Parse(s)
	if err != nil {
		return "", fmt.Errorf("%w: it must look like 01234567-89ab-cdef-0123-456789abcdef", ErrNode)
	}
	if id == uuid.Nil || id == uuid.Max {
		return "", fmt.Errorf("%w: %s is what firmware without an identity reports; set a UUID for this machine", ErrNode, id)
	}
	return Node(id.String()), nil
}
