// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "Words",
    platforms: [.macOS(.v11), .iOS(.v14)],
    products: [.library(name: "Words", targets: ["Words"])],
    targets: [
        .binaryTarget(name: "CDemo", path: "Demo.xcframework"),
        .target(name: "Words", dependencies: ["CDemo"]),
    ]
)
