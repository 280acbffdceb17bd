// Package alicloudkms stands for a seal that the tests do not use.
package alicloudkms

import wrapping "github.com/hashicorp/go-kms-wrapping/v2"

// The names that Vault's configuration asks for; their values do not matter.
const (
	EnvVaultAliCloudKmsSealKeyId = "EnvVaultAliCloudKmsSealKeyId"
	EnvAliCloudKmsWrapperKeyId   = "EnvAliCloudKmsWrapperKeyId"
)

// NewWrapper is not called.
func NewWrapper() wrapping.Wrapper { panic("alicloudkms is absent") }
