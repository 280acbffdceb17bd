package config_test

import "strings"

// Keys, made with openssl genpkey, openssl pkey -pubout and openssl req -x509.
const (
	edwardsKey = `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAwoOtoAd50ZFU0ClhHJQhK5og3vNudsjj2LF+w7quSBE=
-----END PUBLIC KEY-----
`
	rsaKey = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAlhFIZeHJRgnEFW5c1olP
o7hsRk//GOAlFgez6Bw1/2PcyIvBxjALEb4ceOxrn9zIsD/e+i2597vWLZXsZI/A
fzoyfkjVIbMUozHfmjLx5Q1CwzmDfgBqavmMDhfnpUZD9O7PfKdcb7yDtU6KT05d
DoxQLNwrD5sd4i/RbcQILMKzqFkLLLOYTI9xN/JrOoxu3DV8TM1+J+eOGWplynm4
hFnU/L2laMeEqyKFa9k5aLM1k/1VwcP94YRkTjmO5OHeArimhChlU1c79UUQLwMX
Xm4TXhOMrq7N/ps8gOp1queUceUyqkYWl0SeD29yi3pN49YD8trXNMxv/QZ6DKog
SQIDAQAB
-----END PUBLIC KEY-----
`

	// A certificate of a key that is used for nothing else, and another key.
	certificate = `-----BEGIN CERTIFICATE-----
MIIBNDCB56ADAgECAhR1u+EtvXmvqJr3v/24LWuPlEKSpDAFBgMrZXAwDzENMAsG
A1UEAwwEbm9kZTAgFw0yNjExMjIyMjAzMDBaGA8yMTI2MTAyOTIyMDMwMFowDzEN
MAsGA1UEAwwEbm9kZTAqMAUGAytlcAMhAG5p50QFdZDWs3WRcNmwc6vzTg4D9LIu
2VsEe6a0E7l7o1MwUTAdBgNVHQ4EFgQU2aCoZhRJiHmBeenMP5FcPcKZvjMwHwYD
VR0jBBgwFoAU2aCoZhRJiHmBeenMP5FcPcKZvjMwDwYDVR0TAQH/BAUwAwEB/zAF
BgMrZXADQQCl7B6Ppga4MDeMhIas8FQgkJ/p6Fh1VWDF/hOIFO3Pk75Fca/Kinag
eT/EBnAJbyIic3MfFs20OmD84gVmL9IO
-----END CERTIFICATE-----
`
	itsKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIN/OnQsFTZhL2c0T2ruiSXfdIUuone5BblhD7u62WZ/T
-----END PRIVATE KEY-----
`
	otherKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIDFXdwDTEMFwO91brvqkD/OAV3sK/HVodAgwivPMwDGM
-----END PRIVATE KEY-----
`
)

// indent puts spaces before each line, as in a block of YAML.
func indent(text string, spaces int) string {
	pad := strings.Repeat(" ", spaces)
	return pad + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+pad) + "\n"
}
