// Package machineconfig holds no code: its tests let Talos' own packages
// (github.com/siderolabs/talos/pkg/machinery) judge how this project loads and
// patches machine configurations.
package machineconfig
