package keeper

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/cryptctl/cryptctl/kms/policy"
)

// value is one value of a record as the audit log has it: "name=text".
type value struct{ name, text string }

// none is the text of a value that is not there.
const none = "none"

// join puts values on one line.
func join(all []value) string {
	parts := make([]string, len(all))
	for i, v := range all {
		parts[i] = v.name + "=" + v.text
	}
	return strings.Join(parts, " ")
}

// difference is what differs between two lists of the same names.
func difference(from, to []value) (before, after string) {
	var was, is []value
	for i, v := range from {
		if v != to[i] {
			was, is = append(was, v), append(is, to[i])
		}
	}
	return join(was), join(is)
}

// values are those of a record that operators change.
func (r *record) values() []value {
	out := append([]value{{"state", orNone(string(r.Policy.State))}, {"until", timeValue(r.Policy.Until)}}, policyValues(r.Policy.Networks, r.Policy.Limit)...)
	versions := make([]string, len(r.Keys))
	for i, key := range r.Keys {
		versions[i] = strconv.FormatUint(uint64(key.Version), 10)
	}
	return append(out, value{"key_versions", orNone(strings.Join(versions, ","))})
}

// ruleValues are those of the rules for all nodes.
func ruleValues(r policy.Rules) []value {
	enrol := r.Enrol
	if enrol == "" {
		enrol = policy.AllowList
	}
	return append([]value{{"enrol", string(enrol)}}, policyValues(r.Networks, r.Limit)...)
}

// policyValues are those of a policy. Of a node, none is the default's.
func policyValues(networks []netip.Prefix, limit policy.Limit) []value {
	texts := make([]string, len(networks))
	for i, n := range networks {
		texts[i] = n.String()
	}
	number := func(n int) string {
		if n == 0 {
			return none
		}
		return strconv.Itoa(n)
	}
	return []value{{"networks", orNone(strings.Join(texts, ","))}, {"per_hour", number(limit.PerHour)}, {"burst", number(limit.Burst)}}
}

// asked are the values of an approval.
func (a Approval) asked() []value {
	out := []value{{"state", string(policy.Approved)}}
	if a.Reinstate {
		out = append(out, value{"reinstate", "true"})
	}
	if !a.KeepUntil {
		out = append(out, value{"until", timeValue(a.Until)})
	}
	if !a.Keep {
		out = append(out, policyValues(a.Networks, a.Limit)...)
	}
	return out
}

func orNone(text string) string {
	if text == "" {
		return none
	}
	return text
}

func timeValue(t time.Time) string {
	if t.IsZero() {
		return none
	}
	return t.UTC().Format(time.RFC3339)
}
