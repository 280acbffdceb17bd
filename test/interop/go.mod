module github.com/cryptctl/cryptctl/test/interop

go 1.26.3

require (
	github.com/anatol/luks.go v0.0.0-20260615185044-2658459c8ca5
	github.com/cryptctl/cryptctl v0.0.0
	github.com/siderolabs/go-adv v1.0.0
	github.com/siderolabs/go-blockdevice/v2 v2.0.32
	golang.org/x/sys v0.49.0
)

require (
	github.com/anatol/devmapper.go v0.0.0-20250316020617-2671eefd35d7 // indirect
	github.com/armon/circbuf v0.0.0-20190214190532-5111143e8da2 // indirect
	github.com/dgryski/go-camellia v0.0.0-20191119043421-69a8a13fb23d // indirect
	github.com/google/go-tpm v0.9.8 // indirect
	github.com/jzelinskie/whirlpool v0.0.0-20201016144138-0675e54bb004 // indirect
	github.com/siderolabs/gen v0.8.6 // indirect
	github.com/siderolabs/go-cmd v0.2.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	lukechampine.com/adiantum v1.1.1 // indirect
)

replace github.com/cryptctl/cryptctl => ../..
