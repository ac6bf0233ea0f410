/* The program of ../behaviour.c, and what only Windows has. */
#define main common_main
#include "../behaviour.c"
#undef main
#include "windows.h"

int main(int argc, char **argv) {
    int code = common_main(argc, argv);
    printf("thread starts: %d\n", bhv_thread_starts() > 0);
    printf("calling conventions: %d %d\n", bhv_std(9, 4), bhv_fast(6, 7));
    printf("c imported: %d\n", bhv_c_imported());
    printf("c alias: %d\n", bhv_c_alias());
    return code;
}
