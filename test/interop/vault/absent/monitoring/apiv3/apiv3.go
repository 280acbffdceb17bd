// Package apiv3 stands for a sink of metrics that the tests do not use.
package apiv3

import (
	"context"
	"errors"
)

// MetricClient sends nothing.
type MetricClient struct{}

// NewMetricClient fails.
func NewMetricClient(context.Context, ...any) (*MetricClient, error) {
	return nil, errors.New("the monitoring client is absent")
}
