package volume

// DeviceIn is how a partition's device is found, with another /sys/class/block.
func (p Partition) DeviceIn(sys string) (string, error) { return p.device(sys) }
