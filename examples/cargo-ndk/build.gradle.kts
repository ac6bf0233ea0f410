// An AAR whose native part is what build.sh laid out; AGP itself makes Prefab modules of CMake
// targets only, so that the finished folder is put into the AAR.
plugins {
    id("com.android.library") version "8.7.0"
}

android {
    namespace = "org.example.demo"
    compileSdk = 35
    defaultConfig { minSdk = 24 }
}

val prefab by tasks.registering(Exec::class) {
    val out = layout.buildDirectory.dir("stripped")
    outputs.dir(out)
    inputs.dir("../demo/src")
    inputs.files("../demo/Cargo.toml", "../demo/demo.h", "build.sh")
    commandLine("bash", "build.sh", out.get().asFile.path)
}

tasks.withType<Zip>().matching { it.name.startsWith("bundle") && it.name.endsWith("Aar") }
    .configureEach { from(prefab) }
