from itertools import count

from medcritical_ray.engines.fan_out import OrderedBlocks


def test_results_come_in_the_order_of_the_blocks_whatever_finishes_first():
    blocks = OrderedBlocks([("a", 1), ("b", 2), ("c", 3)], window=3)
    first, second, third = blocks.next_block(), blocks.next_block(), blocks.next_block()
    blocks.finish(third, "C")
    blocks.finish(second, "B")
    assert list(blocks.finished_in_order()) == []
    blocks.finish(first, "A")
    assert list(blocks.finished_in_order()) == [("a", "A"), ("b", "B"), ("c", "C")]


def test_a_lost_block_is_handed_out_before_new_ones_and_given_back_once():
    blocks = OrderedBlocks([("a", 1), ("b", 2)], window=2)
    lost = blocks.next_block()
    blocks.put_back(lost)
    again, other = blocks.next_block(), blocks.next_block()
    assert (again.key, other.key) == ("a", "b")
    blocks.finish(other, "B")
    blocks.finish(again, "A")
    assert list(blocks.finished_in_order()) == [("a", "A"), ("b", "B")]


def test_no_more_blocks_are_read_than_the_window_holds():
    numbers = count()
    blocks = OrderedBlocks(((f"key-{n}", n) for n in numbers), window=2)
    blocks.next_block()
    blocks.next_block()
    assert blocks.next_block() is None
    assert next(numbers) == 2


def test_work_is_done_once_every_block_was_given_back():
    blocks = OrderedBlocks([("a", 1)], window=2)
    block = blocks.next_block()
    assert blocks.next_block() is None
    assert not blocks.is_done
    blocks.finish(block, "A")
    list(blocks.finished_in_order())
    assert blocks.is_done


def test_no_blocks_are_no_work():
    blocks = OrderedBlocks([], window=1)
    assert blocks.next_block() is None
    assert blocks.is_done


def test_what_waits_is_counted_as_far_as_the_window_shows_and_lost_blocks_wait_again():
    blocks = OrderedBlocks([(f"key-{n}", n) for n in range(5)], window=3)
    assert blocks.num_waiting == 3
    lost = blocks.next_block()
    assert blocks.num_waiting == 2
    blocks.put_back(lost)
    assert blocks.num_waiting == 3


def test_all_is_handed_out_once_somebody_has_asked_in_vain_and_until_a_block_is_lost():
    blocks = OrderedBlocks([("a", 1)], window=2)
    block = blocks.next_block()
    assert not blocks.is_handed_out
    blocks.next_block()
    assert blocks.is_handed_out
    blocks.put_back(block)
    assert not blocks.is_handed_out


def test_a_window_may_grow_while_blocks_are_handed_out():
    blocks = OrderedBlocks([("a", 1), ("b", 2)], window=1)
    blocks.next_block()
    assert blocks.next_block() is None
    blocks.window = 2
    assert blocks.next_block().key == "b"
