package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Read reads the partition table of a disk image or a block device. An image
// does not say how large its sectors are: 512 bytes are tried, then 4096.
//
// It uses the primary copy and, only where that is damaged or gone, the backup,
// which [Table.Damage] then says. It fails with [ErrNoTable] if there is no GPT,
// and with another error if there is one that must not be used.
func Read(f *os.File) (*Table, error) {
	size, sectors, err := dimensions(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	t, err := read(f, size, sectors)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return t, nil
}

// read reads a table with the first of the sector sizes for which there is one.
func read(r io.ReaderAt, size int64, sectors []int) (*Table, error) {
	for _, sector := range sectors {
		m := medium{r, size, sector}
		if size < 3*int64(sector) {
			continue // no room for MBR and both headers
		}
		t, err := readTable(m)
		if !errors.Is(err, ErrNoTable) {
			return t, err
		}
	}
	return nil, ErrNoTable
}

// readTable picks the copy to use and decodes it.
func readTable(m medium) (*Table, error) {
	t := &Table{SectorSize: m.sector, Size: m.size}
	used, err := t.pick(m)
	if err != nil {
		return nil, err
	}
	if err := t.checkMBR(m); err != nil {
		return nil, err
	}
	// What follows is no reason to try the other copy: the checksums match, so
	// this is what someone wrote, and the kernel goes by it too.
	if t.Partitions, err = used.partitions(m.sector); err != nil {
		return nil, fmt.Errorf("the partition table is not usable: %w", err)
	}
	return t, nil
}

// pick returns the copy to use and notes the damage of the other.
func (t *Table) pick(m medium) (*table, error) {
	primary, err1 := readCopy(m, 1)
	backupLBA := m.last()
	if err1 == nil && primary.OtherLBA > 1 && primary.OtherLBA < backupLBA {
		t.damaged("the backup table is in sector %d, not in the last one (%d): the disk has grown", primary.OtherLBA, backupLBA)
		backupLBA = primary.OtherLBA
	}
	backup, err2 := readCopy(m, backupLBA)
	switch {
	case errors.Is(err1, ErrNoTable) && errors.Is(err2, ErrNoTable):
		return nil, ErrNoTable
	case err1 != nil && err2 != nil:
		return nil, fmt.Errorf("both partition tables are damaged: the primary: %w; the backup: %w", said(err1), said(err2))
	case err1 != nil:
		t.damaged("the primary table is damaged (%v); the backup is used", said(err1))
		return backup, nil
	case err2 != nil:
		t.damaged("the backup table is damaged: %v", said(err2))
	case primary.EntriesSum != backup.EntriesSum || primary.Disk != backup.Disk:
		t.damaged("the backup table is sound but differs from the primary, which is used")
	}
	return primary, nil
}

func (t *Table) damaged(format string, args ...any) {
	t.Damage = append(t.Damage, fmt.Sprintf(format, args...))
}

// said rewords ErrNoTable for one of two copies, of which the other is there:
// callers must not take the whole for it.
func said(err error) error {
	if errors.Is(err, ErrNoTable) {
		return errors.New("there is none")
	}
	return err
}

// checkMBR refuses a disk whose MBR has partitions and none that protects the
// GPT: someone partitioned it anew and left the GPT behind, and its partitions
// would now lie across the new ones.
func (t *Table) checkMBR(m medium) error {
	const (
		entries    = 446
		entrySize  = 16
		typeAt     = 4
		mark       = 510
		protective = 0xee // UEFI 2.10, table 5.3
	)
	b, err := m.sectors(0, m.sector)
	if err != nil {
		return err
	}
	var types []string
	for e := b[entries:mark]; len(e) > 0; e = e[entrySize:] {
		if e[typeAt] == protective {
			return nil
		}
		if e[typeAt] != 0 {
			types = append(types, fmt.Sprintf("%#02x", e[typeAt]))
		}
	}
	if b[mark] == 0x55 && b[mark+1] == 0xaa && len(types) > 0 {
		return fmt.Errorf("the disk has an MBR with partitions of its own (types %s) and a GPT that it does not protect: remove the one that does not count",
			strings.Join(types, ", "))
	}
	t.damaged("no MBR protects the table")
	return nil
}

// imageSectors are the sector sizes that disks have.
func imageSectors() []int { return []int{512, 4096} }
