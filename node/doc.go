// Package node brings up the encrypted volumes of a machine and changes them
// while it runs: META, STATE, EPHEMERAL and the volumes that the machine
// configuration declares.
//
//	META ──how STATE opens──> STATE ──config.yaml──> EPHEMERAL, u-*, r-*, s-*, ...
//	  │                         └─ identities, salt, former configurations
//	  └─ no STATE yet: maintenance, until Apply brings a configuration
//
// Boot, Apply and Reset are the three flows; each can be cut off anywhere and is
// finished, or undone, by the next Boot. What they rely on, in this order:
//
//  1. Keys are written down before a header gets them: those of STATE as
//     candidates in META, those of the others as the configuration in STATE. What
//     was there before stays beside them until every header is in step.
//  2. META's record of how STATE opens changes only after a configured key was
//     seen to open STATE.
//  3. A wipe is noted in META before it begins and struck out after it ended.
//
// What it guarantees beyond packages volume and keys:
//
//   - META chooses among keys. It cannot make an encrypted STATE plain, nor have
//     another one taken for it once its identity was recorded.
//   - A volume that is refused is named with the reason, is not mounted and not
//     written; the others come up without it.
//   - A configuration that needs a wipe first is applied by staging only.
//   - A key server that does not answer holds up no boot of volumes that another key
//     opens, whether the TPM's latch has to wait for slots or not, and no call on a
//     node that is up. Its slots are seen to in the background; until then the
//     volumes' keys stay in memory. What only it opens waits for it, and the node
//     with it, for the time that a key may take.
//   - Close waits for none but, for a moment, one that alone opens what a trial has
//     changed. It ends what the node is doing between two writes.
//
// What it does not protect: META is not authenticated. Who can write the disk
// can remove the recorded identity of STATE, and have STATE wiped.
package node
