package config

import (
	"github.com/cryptctl/cryptctl/logging"
)

// maxDestinations bounds the destinations of logs: each has a queue.
const maxDestinations = 16

// logging reads machine.logging of the main document.
func (r *reader) logging(c cursor) {
	if !c.exists() || !c.fields([]string{"destinations"}) {
		return
	}
	for _, item := range c.field("destinations").items(maxDestinations, "each has memory of its own") {
		if !item.fields([]string{"endpoint", "format", "extraTags"}) {
			continue
		}
		format := item.field("format")
		if text, ok := format.text(); ok && text != "json_lines" {
			format.fail("is not json_lines, the only format there is", "write format: json_lines")
		}
		r.destination(item.field("endpoint"), logging.Destination{Tags: readTags(item.field("extraTags"))})
	}
}

// kernelLog reads a KmsgLogConfig.
func (r *reader) kernelLog(root cursor) {
	if root.fields([]string{"apiVersion", "kind", "name", "url"}) {
		root.named()
		r.destination(root.field("url"), logging.Destination{Kernel: true})
	}
}

// destination adds a destination with the endpoint that the file gives.
func (r *reader) destination(endpoint cursor, d logging.Destination) {
	text, ok := endpoint.text()
	if !ok {
		return
	}
	if !endpoint.exists() {
		endpoint.fail("is missing", "write it as udp:// or tcp://, host and port")
		return
	}
	var err error
	if d.Network, d.Address, err = logging.ParseEndpoint(text); err != nil {
		endpoint.failWith(err)
		return
	}
	r.config.Logging = append(r.config.Logging, d)
}

func readTags(c cursor) map[string]string {
	if !c.exists() || !c.mapping() {
		return nil
	}
	tags := map[string]string{}
	for i := 0; i < len(c.node.Content); i += 2 {
		name := nameOf(c.node.Content[i])
		tags[name], _ = c.field(name).text()
	}
	if err := logging.CheckTags(tags); err != nil {
		c.fail(err.Error(), "write fewer of them")
	}
	return tags
}
