import CDemo

/// Counts the words of texts.
public final class WordCounter {
    private let counter: OpaquePointer

    public init() {
        counter = demo_new()
    }

    deinit {
        demo_free(counter)
    }

    /// Adds the words of a text.
    public func add(_ text: String) {
        demo_add(counter, text)
    }

    /// How often a word was added.
    public func count(of word: String) -> Int {
        Int(demo_count(counter, word))
    }
}
