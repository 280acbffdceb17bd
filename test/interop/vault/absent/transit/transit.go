// Package transit stands for a seal that the tests do not use.
package transit

import wrapping "github.com/hashicorp/go-kms-wrapping/v2"

// The names that Vault's configuration asks for; their values do not matter.
const (
	EnvVaultTransitSealKeyName        = "EnvVaultTransitSealKeyName"
	EnvTransitWrapperKeyName          = "EnvTransitWrapperKeyName"
	EnvTransitWrapperMountPath        = "EnvTransitWrapperMountPath"
	EnvVaultTransitSealMountPath      = "EnvVaultTransitSealMountPath"
	EnvTransitWrapperDisableRenewal   = "EnvTransitWrapperDisableRenewal"
	EnvVaultTransitSealDisableRenewal = "EnvVaultTransitSealDisableRenewal"
)

// NewWrapper is not called.
func NewWrapper() wrapping.Wrapper { panic("transit is absent") }

// WithKeyIdPrefix is not used.
func WithKeyIdPrefix(any) wrapping.Option { return func() any { return nil } }
