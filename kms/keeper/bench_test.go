package keeper_test

import (
	"testing"

	"github.com/cryptctl/cryptctl/secret"
)

// BenchmarkUnseal is the steady path: bbolt, a real audit log, many at once.
func BenchmarkUnseal(b *testing.B) {
	k := start(b, open())
	raw := k.sealed(nodeA, "thirty-two bytes of a passphrase")
	b.SetParallelism(128)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			data, err := k.Unseal(b.Context(), from(nodeA), raw)
			if err != nil {
				b.Error(err)
			}
			k.Release(data)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	k := start(b, open())
	data := secret.Copy([]byte("thirty-two bytes of a passphrase"))
	b.SetParallelism(128)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := k.Seal(b.Context(), from(nodeA), data); err != nil {
				b.Error(err)
			}
		}
	})
}
