/* Generates RPUs, writes one, parses it back, converts it, and reports what damage is called. */
#include "rpu_parser.h"

#include <stdio.h>
#include <string.h>

static const char config[] =
    "{\"cm_version\": \"V40\", \"profile\": \"8.1\", \"length\": 3,"
    " \"shots\": [{\"start\": 0, \"duration\": 3}],"
    " \"level5\": {\"active_area_left_offset\": 1, \"active_area_right_offset\": 2,"
    " \"active_area_top_offset\": 276, \"active_area_bottom_offset\": 276}}";

int main(void) {
    const DoviRpuOpaqueList *list = dovi_generate_from_json(config);
    printf("generated: %zu%s%s\n", list->len, list->error ? ", error " : "",
           list->error ? list->error : "");
    if (list->len == 0) return 1;
    const DoviData *nal = dovi_write_unspec62_nalu(list->list[0]);
    printf("first bytes: %02x %02x %02x\n", nal->data[0], nal->data[1], nal->data[2]);

    DoviRpuOpaque *rpu = dovi_parse_unspec62_nalu(nal->data, nal->len);
    const DoviRpuDataHeader *header = dovi_rpu_get_header(rpu);
    printf("profile: %d, type %d\n", header->guessed_profile, header->rpu_type);
    dovi_rpu_free_header(header);
    const DoviVdrDmData *dm = dovi_rpu_get_vdr_dm_data(rpu);
    printf("active area: %d %d %d %d\n", dm->dm_data.level5->active_area_left_offset,
           dm->dm_data.level5->active_area_right_offset, dm->dm_data.level5->active_area_top_offset,
           dm->dm_data.level5->active_area_bottom_offset);
    dovi_rpu_free_vdr_dm_data(dm);
    const DoviData *again = dovi_write_unspec62_nalu(rpu);
    printf("same again: %d\n", again->len == nal->len && !memcmp(again->data, nal->data, nal->len));
    dovi_data_free(again);
    printf("convert to profile 8.4: %d\n", dovi_convert_rpu_with_mode(rpu, 3));
    printf("remove cmv40: %d\n", dovi_rpu_remove_cmv40_metadata(rpu));
    dovi_rpu_free(rpu);

    uint8_t damaged[8] = {0x19, 0xff, 0, 1, 2, 3, 4, 0x80};
    rpu = dovi_parse_rpu(damaged, sizeof damaged);
    const char *error = dovi_rpu_get_error(rpu);
    printf("damaged: %s\n", error ? "error" : "no error");
    printf("damaged header: %d\n", dovi_rpu_get_header(rpu) != NULL);
    dovi_rpu_free(rpu);

    const DoviRpuOpaqueList *none = dovi_generate_from_json("{");
    printf("bad json: %zu, %s\n", none ? none->len : 0, none && none->error ? "error" : "no error");
    /* Not freed: a dev build aborts on the null list inside (NonNull::new_unchecked). */
    dovi_data_free(nal);
    dovi_rpu_list_free(list);
    return 0;
}
