/* Quantises a small image to eight colours, with a callback, and reports an error path. */
#include "libimagequant.h"

#include <stdio.h>

enum { WIDTH = 32, HEIGHT = 16 };

static int messages;

static void on_message(const liq_attr *attr, const char *message, void *user_info) {
    (void)attr;
    (void)message;
    *(int *)user_info += 1;
}

/* Four flat colours, one in each quarter. */
static void row(liq_color row_out[], int y, int width, void *user_info) {
    (void)user_info;
    for (int x = 0; x < width; x++) {
        liq_color color = {x < width / 2 ? 0 : 255, y < HEIGHT / 2 ? 0 : 255, 40, 255};
        row_out[x] = color;
    }
}

int main(void) {
    liq_attr *attr = liq_attr_create();
    liq_set_log_callback(attr, on_message, &messages);
    printf("set colours: %d\n", liq_set_max_colors(attr, 8));
    printf("bad value: %d\n", liq_set_max_colors(attr, 1000));
    printf("max colours: %d\n", liq_get_max_colors(attr));
    liq_image *image = liq_image_create_custom(attr, row, NULL, WIDTH, HEIGHT, 0);
    liq_result *result = NULL;
    printf("quantise: %d\n", liq_image_quantize(image, attr, &result));
    unsigned char pixels[WIDTH * HEIGHT];
    printf("remap: %d\n", liq_write_remapped_image(result, image, pixels, sizeof pixels));
    const liq_palette *palette = liq_get_palette(result);
    printf("colours: %u\n", palette->count);
    int corners[4] = {0, WIDTH - 1, WIDTH * (HEIGHT - 1), WIDTH * HEIGHT - 1};
    for (int i = 0; i < 4; i++) {
        liq_color c = palette->entries[pixels[corners[i]]];
        printf("corner: %d %d %d %d\n", c.r, c.g, c.b, c.a);
    }
    printf("quality: %d\n", liq_get_quantization_quality(result));
    printf("messages: %s\n", messages > 0 ? "some" : "none");
    liq_result_destroy(result);
    liq_image_destroy(image);
    liq_attr_destroy(attr);
    return 0;
}
