package luks

// Confirmed reports whether the digest that binds the data of this header
// confirmed a volume key, when the key was unlocked or checked. It costs no
// derivation. A key of another volume, a fresh one and one that was wiped are
// not confirmed.
func (h *Header) Confirmed(v *VolumeKey) bool {
	d, ok := h.meta.dataDigest()
	return ok && v != nil && v.Bytes().Len() > 0 && v.digest != "" && v.digest == h.digestText(d.ID)
}
