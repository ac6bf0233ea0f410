/* Registers the plugin as an application that links it in does, and runs a pipeline to its end. */
#include <gst/gst.h>

#include <stdio.h>

void gst_plugin_fallbackswitch_register(void);

static guint buffers;

static void on_handoff(GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer data) {
    (void)sink;
    (void)buffer;
    (void)pad;
    (void)data;
    buffers += 1;
}

int main(int argc, char **argv) {
    gst_init(&argc, &argv);
    GstElement *none = gst_element_factory_make("fallbackswitch", NULL);
    printf("before: %s\n", none ? "an element" : "none");
    gst_plugin_fallbackswitch_register();

    GstElement *element = gst_element_factory_make("fallbackswitch", "s");
    printf("element: %s\n", element ? G_OBJECT_TYPE_NAME(element) : "none");
    guint64 timeout = 0;
    g_object_get(element, "timeout", &timeout, NULL);
    printf("timeout: %llu ms\n", (unsigned long long)(timeout / GST_MSECOND));
    gst_object_unref(element);

    GError *error = NULL;
    GstElement *pipeline = gst_parse_launch(
        /* Sinks start to play before the switch is told when that was, and it counts from the start
           of the machine until then: with less than decades it may take buffers for late. */
        "audiotestsrc num-buffers=20 ! fallbackswitch name=switch timeout=1000000000000000000"
        " ! fakesink name=sink sync=false signal-handoffs=true",
        &error);
    if (error) {
        printf("error: %s\n", error->message);
        return 1;
    }
    GstElement *sink = gst_bin_get_by_name(GST_BIN(pipeline), "sink");
    g_signal_connect(sink, "handoff", G_CALLBACK(on_handoff), NULL);
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    GstBus *bus = gst_element_get_bus(pipeline);
    GstMessage *message =
        gst_bus_timed_pop_filtered(bus, 60 * GST_SECOND, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
    printf("end: %s\n", message ? GST_MESSAGE_TYPE_NAME(message) : "timeout");
    printf("buffers: %u\n", buffers);
    if (message) gst_message_unref(message);
    gst_object_unref(bus);
    gst_object_unref(sink);
    gst_element_set_state(pipeline, GST_STATE_NULL);
    gst_object_unref(pipeline);
    return 0;
}
