package pcr

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// commandPolicyPCR is TPM_CC_PolicyPCR.
const commandPolicyPCR = 0x17f

// Policy returns the policy digest that a fresh SHA-256 policy session has after
// TPM2_PolicyPCR over the values of some PCRs of a known bank:
//
//	SHA-256(32 zero bytes | TPM_CC_PolicyPCR | TPML_PCR_SELECTION | SHA-256(values, ascending))
//
// The session's hash is SHA-256 in any bank, as in systemd and Talos.
func Policy(bank Bank, values map[int][]byte) ([]byte, error) {
	if !bank.Known() {
		return nil, fmt.Errorf("a policy over PCRs of %s: this bank is not known", bank)
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("a policy over no PCR would be fulfilled by any system")
	}
	var selected [Count / 8]byte
	indexes := make([]int, 0, len(values))
	for index, value := range values {
		if index < 0 || index >= Count {
			return nil, fmt.Errorf("a policy over PCR %d: there are 0 to %d", index, Count-1)
		}
		if len(value) != bank.Size() {
			return nil, fmt.Errorf("the value of PCR %d has %d bytes, a %s bank has %d", index, len(value), bank, bank.Size())
		}
		selected[index/8] |= 1 << (index % 8)
		indexes = append(indexes, index)
	}
	slices.Sort(indexes)
	all := sha256.New()
	for _, index := range indexes {
		all.Write(values[index])
	}
	buf := make([]byte, sha256.Size, 2*sha256.Size+16) // the session starts with zeros
	buf = binary.BigEndian.AppendUint32(buf, commandPolicyPCR)
	buf = binary.BigEndian.AppendUint32(buf, 1) // selections
	buf = binary.BigEndian.AppendUint16(buf, uint16(bank))
	buf = append(buf, byte(len(selected)))
	buf = append(buf, selected[:]...)
	digest := sha256.Sum256(all.Sum(buf))
	return digest[:], nil
}
