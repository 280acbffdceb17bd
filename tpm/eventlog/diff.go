package eventlog

import "strings"

// maxDiff bounds the work of a comparison: records with more differing events
// are compared without regard to their order.
const maxDiff = 1 << 20

// diff says what has to happen to the events of before to make those of after.
func diff(before, after []RecordedEvent) []Change {
	for len(before) > 0 && len(after) > 0 && before[0].Digest == after[0].Digest {
		before, after = before[1:], after[1:]
	}
	for len(before) > 0 && len(after) > 0 && before[len(before)-1].Digest == after[len(after)-1].Digest {
		before, after = before[:len(before)-1], after[:len(after)-1]
	}
	removed, added := before, after
	if len(before)*len(after) <= maxDiff {
		removed, added = uncommon(before, after)
	}
	return pair(removed, added)
}

// uncommon returns what of both is not in their longest common subsequence.
func uncommon(before, after []RecordedEvent) (removed, added []RecordedEvent) {
	width := len(after) + 1
	longest := make([]int32, (len(before)+1)*width) // of before[i:] and after[j:]
	for i := len(before) - 1; i >= 0; i-- {
		for j := len(after) - 1; j >= 0; j-- {
			if before[i].Digest == after[j].Digest {
				longest[i*width+j] = longest[(i+1)*width+j+1] + 1
			} else {
				longest[i*width+j] = max(longest[(i+1)*width+j], longest[i*width+j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(before) && j < len(after) {
		switch {
		case before[i].Digest == after[j].Digest:
			i, j = i+1, j+1
		case longest[(i+1)*width+j] >= longest[i*width+j+1]:
			removed, i = append(removed, before[i]), i+1
		default:
			added, j = append(added, after[j]), j+1
		}
	}
	return append(removed, before[i:]...), append(added, after[j:]...)
}

// pair joins what was removed and added of the same digest, or else about the
// same thing, to one change, in the order of after; what was removed for good
// comes last.
func pair(removed, added []RecordedEvent) []Change {
	changes := make([]Change, len(added))
	digests, abouts := queue{}, queue{}
	for i, e := range removed {
		digests.push(e.Digest, i)
		abouts.push(e.About, i)
	}
	used := make([]bool, len(removed))
	for i, e := range added {
		if j, ok := digests.pop(e.Digest, used); ok {
			changes[i] = Change{Kind: Moved, About: e.About, Was: removed[j].Detail, Is: e.Detail}
		}
	}
	for i, e := range added {
		if changes[i].Kind != "" {
			continue
		}
		changes[i] = Change{Kind: Added, About: e.About, Is: e.Detail}
		if j, ok := abouts.pop(e.About, used); ok {
			changes[i] = Change{Kind: Changed, About: e.About, Was: removed[j].Detail, Is: e.Detail}
		}
	}
	for j, e := range removed {
		if !used[j] {
			changes = append(changes, Change{Kind: Removed, About: e.About, Was: e.Detail})
		}
	}
	return withoutNames(changes)
}

// queue finds events by a text, first come, first served.
type queue map[string][]int

func (q queue) push(key string, i int) { q[key] = append(q[key], i) }

// pop returns the next event of a text that is not used, and marks it so.
func (q queue) pop(key string, used []bool) (int, bool) {
	for len(q[key]) > 0 {
		i := q[key][0]
		if q[key] = q[key][1:]; !used[i] {
			used[i] = true
			return i, true
		}
	}
	return 0, false
}

// withoutNames leaves out the names of sections whose content is in the list: a
// section comes and goes with both.
func withoutNames(changes []Change) []Change {
	listed := map[string]bool{}
	for _, c := range changes {
		listed[c.About] = true
	}
	kept := changes[:0]
	for _, c := range changes {
		section, isName := strings.CutPrefix(c.About, sectionName)
		if !isName || !listed["section "+section] {
			kept = append(kept, c)
		}
	}
	return kept
}
