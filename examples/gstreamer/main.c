/* Two plugins, linked in: each does its work in a pipeline. */
#include <gst/gst.h>

#include <stdio.h>

void gst_plugin_fallbackswitch_register(void);
void gst_plugin_togglerecord_register(void);

static void play(const char *description) {
    GstElement *pipeline = gst_parse_launch(description, NULL);
    if (!pipeline) {
        printf("no such pipeline\n");
        return;
    }
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    GstBus *bus = gst_element_get_bus(pipeline);
    GstMessage *message =
        gst_bus_timed_pop_filtered(bus, 60 * GST_SECOND, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
    printf("the pipeline ended with %s\n", message ? GST_MESSAGE_TYPE_NAME(message) : "nothing");
    if (message) gst_message_unref(message);
    gst_object_unref(bus);
    gst_element_set_state(pipeline, GST_STATE_NULL);
    gst_object_unref(pipeline);
}

int main(int argc, char **argv) {
    gst_init(&argc, &argv);
    gst_plugin_fallbackswitch_register();
    gst_plugin_togglerecord_register();
    play("audiotestsrc num-buffers=20 ! fallbackswitch timeout=60000000000 ! fakesink sync=false");
    play("audiotestsrc num-buffers=20 ! togglerecord record=true ! fakesink sync=false");
    return 0;
}
