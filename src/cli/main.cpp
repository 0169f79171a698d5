// statera: the program. Signals and arguments only; everything else is run_program (cli/support/program.cpp).
#include "base/heap.h"
#include "cli/support/command.h"

int main(int argc, char** argv) {
  statera::use_huge_pages();
  statera::ignore_broken_pipe();
  statera::catch_interrupts();
  return statera::run_program(statera::commands(), {argv + 1, argv + argc});
}
