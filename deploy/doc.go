// Package deploy holds what runs beside the key server: a systemd unit, alert rules
// for Prometheus, a dashboard for Grafana. There is no code in it; its tests hold
// the files to a server that answers, and the unit to systemd's own judgement.
package deploy
