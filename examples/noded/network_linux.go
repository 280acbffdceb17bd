package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// setNetwork gives the first network card an address such as 10.0.2.15/24, and
// nothing more: a key server is found by its address in the same network. Without
// an address there is no network.
func setNetwork(address string) error {
	if address == "" {
		return nil
	}
	own, err := netip.ParsePrefix(address)
	if err != nil || !own.Addr().Is4() {
		return fmt.Errorf("noded.address: %q must look like 10.0.2.15/24", address)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	card, err := unix.NewIfreq("eth0")
	if err != nil {
		return err
	}
	err = errors.Join(
		card.SetInet4Addr(own.Addr().AsSlice()), unix.IoctlIfreq(fd, unix.SIOCSIFADDR, card),
		card.SetInet4Addr(net.CIDRMask(own.Bits(), 32)), unix.IoctlIfreq(fd, unix.SIOCSIFNETMASK, card),
		unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, card),
	)
	if err == nil {
		card.SetUint16(card.Uint16() | unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, card)
	}
	if err != nil {
		return fmt.Errorf("network eth0: %w", err)
	}
	return nil
}

// readAuthorities reads whose certificates key servers may show; without a path
// those of the system.
func readAuthorities(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("noded.kms-authorities: %w", err)
	}
	return text, nil
}
