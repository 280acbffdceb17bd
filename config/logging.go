package config

import (
	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/logging"
)

// logging reads machine.logging of the main document.
func (r *reader) logging(c cursor) {
	c = r.aside(c)
	if !c.exists() || !c.fields([]string{"destinations"}) {
		return
	}
	for _, item := range c.field("destinations").items(logging.MaxDestinations, "each has memory of its own") {
		if !item.fields([]string{"endpoint", "format", "extraTags"}) {
			continue
		}
		format, wrong := item.field("format"), true
		if text, ok := format.text(); ok {
			wrong = format.failIf(logging.CheckFormat(text))
		}
		d, ok := r.destination(item.field("endpoint"), logging.Destination{Tags: readTags(item.field("extraTags"))})
		if ok && !wrong {
			r.config.Logging = append(r.config.Logging, d)
		}
	}
}

// kernelLog reads a KmsgLogConfig.
func (r *reader) kernelLog(root cursor) {
	root = r.aside(root)
	if root.fields([]string{"apiVersion", "kind", "name", "url"}) {
		root.named()
		if d, ok := r.destination(root.field("url"), logging.Destination{Kernel: true}); ok {
			r.config.Logging = append(r.config.Logging, d)
		}
	}
}

// destination reads the endpoint of one more destination.
func (r *reader) destination(endpoint cursor, d logging.Destination) (logging.Destination, bool) {
	text, ok := endpoint.text()
	if !ok {
		return d, false
	}
	if !endpoint.exists() {
		endpoint.fail("is missing", "write it as udp:// or tcp://, host and port")
		return d, false
	}
	var err error
	if d.Network, d.Address, err = logging.ParseEndpoint(text); err == nil {
		err = logging.CheckNumber(len(r.config.Logging) + 1)
	}
	return d, !endpoint.failIf(err)
}

func readTags(c cursor) map[string]string {
	if !c.exists() || !c.mapping() {
		return nil
	}
	tags := map[string]string{}
	for i := 0; i < len(c.node.Content); i += 2 {
		name := nameOf(c.node.Content[i])
		tag := c.field(name)
		tag.path = document.Path(c.path, document.ShownStep(name))
		tags[name], _ = tag.text()
	}
	if c.failIf(logging.CheckTags(tags)) {
		return nil
	}
	return tags
}

// failIf reports whether there is an error, as a mistake.
func (c cursor) failIf(err error) bool {
	if err != nil {
		c.failWith(err)
	}
	return err != nil
}
