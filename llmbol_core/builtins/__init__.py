"""The built-in modules of a Dis program: $Sys, $Math and $Ml."""
