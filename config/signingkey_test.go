package config_test

import "strings"

// Public keys, made with openssl genpkey and openssl pkey -pubout.
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
)

// indent puts spaces before each line, as in a block of YAML.
func indent(text string, spaces int) string {
	pad := strings.Repeat(" ", spaces)
	return pad + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+pad) + "\n"
}
