from medcritical_ray.seeds import derive_seed, uniform


def test_a_seed_is_the_same_in_every_process_and_release():
    assert derive_seed(0, 1, "q-1", "solve", 0, 0) == 2132007491
    assert derive_seed(0, 1, "q-1", "repair", 0, 0) == 1439116313


def test_every_part_of_the_key_changes_the_seed():
    seeds = {
        derive_seed(0, 1, "q-1", "solve", 0, 0),
        derive_seed(7, 1, "q-1", "solve", 0, 0),
        derive_seed(0, 7, "q-1", "solve", 0, 0),
        derive_seed(0, 1, "q-7", "solve", 0, 0),
        derive_seed(0, 1, "q-1", "check", 0, 0),
        derive_seed(0, 1, "q-1", "solve", 7, 0),
        derive_seed(0, 1, "q-1", "solve", 0, 7),
    }
    assert len(seeds) == 7


def test_keys_that_read_alike_when_joined_differ():
    assert uniform("a", 11, "b") != uniform("a", 1, "1b")
    assert uniform("1") != uniform(1)


def test_seeds_are_non_negative_31_bit_numbers():
    seeds = [derive_seed(0, 0, f"q-{i}", "solve", 0, 0) for i in range(2000)]
    assert min(seeds) >= 0
    assert 2**30 < max(seeds) < 2**31


def test_a_share_drawn_by_key_is_about_that_share():
    draws = [uniform("checked", i) for i in range(2000)]
    assert min(draws) >= 0
    assert max(draws) < 1
    assert 540 < sum(draw < 0.3 for draw in draws) < 660


def test_a_number_drawn_by_key_is_the_same_every_time():
    assert uniform("checked", 1, "q-1", 0) == 0.008729240889063572
