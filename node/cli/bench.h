#ifndef SKEIN_NODE_CLI_BENCH_H
#define SKEIN_NODE_CLI_BENCH_H

/* skein bench FILE: prefill and decode tokens/s of a model on this box, as one process, and the
 * share of the memory bandwidth measured in the same minute that decode reached. */
int bench_command(int argc, char **argv);

#endif
