/* One function of many. */
#include "rpu_parser.h"

int main(void) { return dovi_parse_rpu((const uint8_t[]){25, 0}, 2) == 0; }
