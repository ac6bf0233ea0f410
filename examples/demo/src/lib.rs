//! Counts the words of a text: a small library with a C API, described in `demo.h`.

use std::collections::HashMap;
use std::ffi::{c_char, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::thread;

/// How often each word was seen.
#[derive(Default)]
pub struct Counter {
    words: HashMap<String, u32>,
}

impl Counter {
    fn add(&mut self, text: &str) {
        for word in text.split_whitespace() {
            *self.words.entry(word.to_lowercase()).or_default() += 1;
        }
    }
}

/// # Safety
/// `text` ends in zero.
unsafe fn text<'a>(text: *const c_char) -> &'a str {
    // A panic here stands for any: no panic may leave a function that C calls.
    CStr::from_ptr(text).to_str().expect("the text is UTF-8")
}

#[no_mangle]
pub extern "C" fn demo_new() -> *mut Counter {
    Box::into_raw(Box::default())
}

/// # Safety
/// `counter` comes from `demo_new`, `words` ends in zero.
#[no_mangle]
pub unsafe extern "C" fn demo_add(counter: *mut Counter, words: *const c_char) -> i32 {
    match catch_unwind(AssertUnwindSafe(|| (*counter).add(text(words)))) {
        Ok(()) => 0,
        Err(_) => -1,
    }
}

/// # Safety
/// `counter` comes from `demo_new`, `word` ends in zero.
#[no_mangle]
pub unsafe extern "C" fn demo_count(counter: *const Counter, word: *const c_char) -> u32 {
    let word = CStr::from_ptr(word).to_string_lossy();
    (*counter).words.get(word.as_ref()).copied().unwrap_or(0)
}

/// # Safety
/// `counter` comes from `demo_new`.
#[no_mangle]
pub unsafe extern "C" fn demo_words(counter: *const Counter) -> usize {
    (*counter).words.len()
}

/// # Safety
/// `texts` holds `length` pointers to texts that end in zero.
#[no_mangle]
pub unsafe extern "C" fn demo_total(texts: *const *const c_char, length: usize) -> usize {
    let texts = std::slice::from_raw_parts(texts, length);
    let owned = texts
        .iter()
        .map(|t| CStr::from_ptr(*t).to_string_lossy().into_owned());
    let threads: Vec<_> = owned
        .map(|text| thread::spawn(move || text.split_whitespace().count()))
        .collect();
    threads.into_iter().map(|t| t.join().unwrap_or(0)).sum()
}

/// # Safety
/// `counter` comes from `demo_new` and is not used again.
#[no_mangle]
pub unsafe extern "C" fn demo_free(counter: *mut Counter) {
    if !counter.is_null() {
        drop(Box::from_raw(counter));
    }
}
