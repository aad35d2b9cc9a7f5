"""Running attacks: the protocol of a trial, stages of trials, and the processes and machines that they run on."""
