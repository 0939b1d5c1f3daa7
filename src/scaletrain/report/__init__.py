"""`scaletrain report`: what happened in one or several runs, as one page to look at and to pass on."""
