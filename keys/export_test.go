package keys

// CheckKeys is what is held against a list of wanted keys before anything is done.
var CheckKeys = checkKeys
