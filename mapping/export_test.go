package mapping

// CheckOverlap is what Activate asks before it maps anything.
var CheckOverlap = checkOverlap

// CheckOverlapLUKS1 is what ActivateLUKS1 asks before it maps anything.
var CheckOverlapLUKS1 = checkOverlapLUKS1
